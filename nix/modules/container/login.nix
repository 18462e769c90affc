# No getty: `nuc login` enters from outside. logind stays, since
# switch-to-configuration asks it for its users and, where that fails, ends
# between stopping units and starting them.
{ lib, ... }:
let
  # Stronger than getty.nix's own mkDefault, weaker than a configuration.
  off = lib.mkOverride 900 false;
in
{
  systemd.services = {
    "autovt@".enable = off;
    "console-getty".enable = off;
    "container-getty@".enable = off;
    "getty@".enable = off;
    "serial-getty@".enable = off;
  };
  # Nobody is at the console to answer it.
  systemd.enableEmergencyMode = lib.mkDefault false;
}
