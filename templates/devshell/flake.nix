{
  inputs.nuc.url = "github:nix-user-containers/nuc";
  inputs.nixpkgs.follows = "nuc/nixpkgs";

  outputs =
    { nixpkgs, nuc, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      db = nuc.lib.mkContainer {
        name = "db";
        inherit pkgs;
        modules = [ ./configuration.nix ];
      };
    in
    {
      nucContainers.${system} = { inherit db; };
      apps.${system} = db.apps;

      # `nuc up .#db`, then `psql -l`.
      devShells.${system}.default = pkgs.mkShell {
        packages = [
          nuc.packages.${system}.nuc
          pkgs.postgresql
        ];
        PGHOST = "127.0.0.1";
        PGPORT = "15432";
        PGUSER = "postgres";
      };
    };
}
