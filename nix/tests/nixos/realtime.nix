# A service that asks for what the host may not give.
{ pkgs, ... }:
{
  systemd.services.realtime = {
    description = "A service with real-time scheduling";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
      CPUSchedulingPolicy = "rr";
      IOSchedulingClass = "realtime";
    };
  };
}
