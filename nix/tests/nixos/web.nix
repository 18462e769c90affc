# What is booted: all of the above in one container.
{ key }:
{
  config,
  nucLib,
  ...
}:
{
  users.users.ana.openssh.authorizedKeys.keys = [ key ];
  nuc = {
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
