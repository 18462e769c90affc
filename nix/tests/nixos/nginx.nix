{ pkgs, ... }:
{
  services.nginx = {
    enable = true;
    virtualHosts.localhost = {
      listen = [
        {
          addr = "127.0.0.1";
          port = 8080;
        }
      ];
      root = pkgs.writeTextDir "index.html" "served from the store";
    };
  };
}
