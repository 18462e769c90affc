# sshd and a service of its own on sockets of the host's, and nginx for who links
# to it.
{ key }:
{ lib, pkgs, ... }:
{
  imports = [
    ./nginx.nix
    ./sshd.nix
  ];
  services.openssh.startWhenNeeded = lib.mkOverride 40 true;
  systemd.sockets = {
    # What 18.03 has is a port of every address, which can't be a user's.
    sshd.socketConfig.ListenStream = lib.mkForce "127.0.0.1:28222";
    hello = {
      wantedBy = [ "sockets.target" ];
      socketConfig = {
        ListenStream = "127.0.0.1:28223";
        Accept = true;
      };
    };
  };
  systemd.services."hello@".serviceConfig = {
    StandardInput = "socket";
    ExecStart = "${pkgs.bash}/bin/bash -c 'echo hello $REMOTE_ADDR'";
  };
  users.users.ana.openssh.authorizedKeys.keys = [ key ];
  nuc = {
    handOver = [
      "hello"
      "sshd"
    ];
    ready.units = [ "nginx.service" ];
  };
}
