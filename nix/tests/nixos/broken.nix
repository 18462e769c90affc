# A generation with a service that can't start.
{ pkgs, ... }:
{
  systemd.services.broken = {
    description = "A service that fails";
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/false";
    serviceConfig.Type = "oneshot";
  };
}
