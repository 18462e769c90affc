{
  default = {
    path = ./default;
    description = "A container with nginx, started by nix run";
  };
  devshell = {
    path = ./devshell;
    description = "A development shell beside a container with PostgreSQL";
  };
  flake-parts = {
    path = ./flake-parts;
    description = "The same with flake-parts";
  };
}
