{ pkgs, ... }:
{
  services.postgresql = {
    enable = true;
    enableTCPIP = true;
    authentication = "host all all 127.0.0.1/32 trust";
    initialScript = pkgs.writeText "initial.sql" ''
      CREATE ROLE app LOGIN;
      CREATE DATABASE app OWNER app;
    '';
  };
}
