{
  description = "nginx in one rootless container, linked to PostgreSQL in another";

  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";

  outputs =
    { nixpkgs, nuc, ... }:
    let
      containersFor =
        system:
        builtins.mapAttrs
          (
            name: module:
            nuc.lib.mkContainer {
              inherit name;
              pkgs = nixpkgs.legacyPackages.${system};
              modules = [ module ];
            }
          )
          {
            db = ./db.nix;
            web = ./web.nix;
          };
    in
    {
      # nuc up .#db .#web
      nucContainers = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] containersFor;
    };
}
