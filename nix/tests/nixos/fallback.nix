# A service whose sandbox is taken back in part.
{ pkgs, ... }:
{
  systemd.services.fallback = {
    description = "A service without its whole sandbox";
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
      ProcSubset = "pid";
      ProtectControlGroups = true;
      ProtectHome = true;
      ProtectProc = "invisible";
    };
  };
  nuc.sandboxFallback.units = [ "fallback" ];
}
