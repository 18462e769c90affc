# What is booted: all of the above in one container.
{ key }:
{
  config,
  lib,
  nucLib,
  pkgs,
  ...
}:
let
  # sudo reads a file only if it is root's, which nothing in the store is.
  allowed = pkgs.writeText "sudoers-whoami" ''
    ben ALL=(root) NOPASSWD: /run/current-system/sw/bin/whoami
  '';
  ignored = pkgs.writeText "sudoers-uname" ''
    ben ALL=(root) NOPASSWD: /run/current-system/sw/bin/uname
  '';
in
{
  security.sudo.extraConfig = ''
    #include ${allowed}
    #include ${ignored}
  '';
  users.users.ana.openssh.authorizedKeys.keys = [ key ];
  nuc = {
    # As strong as what leaves Debian's sudo out.
    rootOwnedPackages = lib.mkForce [ allowed ];
    ports = nucLib.ports.forward 20000 (
      nucLib.ports.postgresql config ++ nucLib.ports.nginx config ++ nucLib.ports.openssh config
    );
    ready.units = [
      "nginx.service"
      "postgresql.service"
      "sshd.service"
    ];
  };
}
