# No getty and no PAM service of login(1): `nuc login` enters from outside, and
# has no part in PAM. logind stays, since switch-to-configuration asks it for its
# users and, where that fails, ends between stopping units and starting them.
{ lib, options, ... }:
let
  # Stronger than NixOS' own mkDefault, weaker than a configuration.
  own = lib.mkOverride 900;
  known = import ./known.nix { inherit lib options; };
  off = own false;
  service = options.security.pam.services.type.getSubOptions [ ];
in
{
  config = lib.mkMerge [
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

      # Without its file PAM falls back to `other`, which refuses. Releases before
      # 25.05 can't leave a service out: theirs says so itself.
      security.pam.services.login =
        if service ? enable then
          { enable = off; }
        else
          {
            text = own ''
              auth required pam_deny.so
              account required pam_deny.so
              password required pam_deny.so
              session required pam_deny.so
            '';
          };
    }
    # Nobody is locked out whose password isn't known: there is `nuc login`.
    (known "users.allowNoPasswordLogin" (lib.mkDefault true))
  ];
}
