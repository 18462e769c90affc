{
  description = "A development shell with PostgreSQL and Redis in rootless containers";

  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";

  outputs =
    { nixpkgs, nuc, ... }:
    let
      perSystem = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
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
            cache = ./cache.nix;
            db = ./db.nix;
          };
    in
    {
      nucContainers = perSystem containersFor;

      # `nix develop`, or direnv: in the shell, `psql -l` and
      # `redis-cli -u $REDIS_URL ping` reach the containers, which stop a minute
      # after the last shell has ended.
      devShells = perSystem (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          # Any other way to make a shell takes the hook as well.
          default = pkgs.mkShell {
            packages = [
              nuc.packages.${system}.nuc
              pkgs.postgresql
              pkgs.redis
            ];
            shellHook = nuc.lib.shellHook {
              containers = containersFor system;
              wait = true;
              keepSeconds = 60;
            };
          };
        }
      );
    };
}
