# PostgreSQL, which only other containers reach: no port leads here.
{ lib, pkgs, ... }:
{
  services.postgresql = {
    enable = true;
    initialScript = pkgs.writeText "web.sql" ''
      create role web login;
      create database web owner web;
    '';
    # What a link relays comes from the container's own loopback.
    authentication = lib.mkForce ''
      local all postgres peer
      host web web 127.0.0.1/32 trust
      host web web ::1/128 trust
    '';
  };

  # The web server has nothing to look up.
  nuc.network.outbound = false;
  nuc.ready.units = [ "postgresql.service" ];

  system.stateVersion = "26.05";
}
