{
  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";

  outputs =
    { nixpkgs, nuc, ... }:
    let
      system = "x86_64-linux";
      web = nuc.lib.mkContainer {
        name = "web";
        pkgs = nixpkgs.legacyPackages.${system};
        modules = [ ./configuration.nix ];
      };
    in
    {
      # `nuc up .#web` reads this; `nix run .#container-start` needs no nuc.
      nucContainers.${system} = { inherit web; };
      apps.${system} = web.apps;
    };
}
