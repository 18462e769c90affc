# What systemd keeps its own services from, the launcher has kept the whole
# container from: the clock, the kernel's log and its modules. Each of these is a
# system call filter, and some are mounts, that are made before the service runs.
{ lib, ... }:
{
  systemd.services =
    lib.genAttrs
      [
        "systemd-journald"
        "systemd-logind"
      ]
      (_: {
        serviceConfig = {
          ProtectClock = lib.mkDefault false;
          ProtectKernelLogs = lib.mkDefault false;
          ProtectKernelModules = lib.mkDefault false;
        };
      });
}
