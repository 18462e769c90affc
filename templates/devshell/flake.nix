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

      # `nix develop`, or direnv with `use flake`: db runs as long as a shell is
      # open. Then `psql -l`.
      devShells.${system}.default = nuc.lib.mkShell {
        containers = [ db ];
        packages = [ pkgs.postgresql ];
      };
    };
}
