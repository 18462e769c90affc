{
  description = "PostgreSQL behind nginx in one rootless container";

  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";

  outputs =
    { nixpkgs, nuc, ... }:
    let
      containerFor =
        system:
        nuc.lib.mkContainer {
          name = "example";
          pkgs = nixpkgs.legacyPackages.${system};
          modules = [ ./configuration.nix ];
        };
      perSystem = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
    in
    {
      nucContainers = perSystem (system: {
        example = containerFor system;
      });
      apps = perSystem (system: (containerFor system).apps);
    };
}
