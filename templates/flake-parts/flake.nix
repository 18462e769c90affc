{
  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";
  inputs.flake-parts.url = "github:hercules-ci/flake-parts";
  inputs.flake-parts.inputs.nixpkgs-lib.follows = "nixpkgs";

  outputs =
    inputs:
    inputs.flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.nuc.flakeModules.default ];
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];

      # `nuc up .#web`, or `nix run .#web-start`
      perSystem.nuc.containers.web.modules = [ ./configuration.nix ];
    };
}
