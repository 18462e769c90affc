# What clients on the host need to reach a service, for nuc.env. Each function
# takes a configuration and looks for the service's port in nuc.ports:
#
#   nuc.env = nucLib.env.postgresql config;
let
  inherit (builtins) filter head;
  ports = import ./ports.nix;

  # reach finds where a port of the container is on the host.
  reach =
    config: service: port:
    let
      count = p: p.count or 1;
      leads = filter (
        p: (p.protocol or "tcp") == "tcp" && p.container <= port && port < p.container + count p
      ) config.nuc.ports;
      p = head leads;
      address = p.address or "127.0.0.1";
    in
    if leads == [ ] then
      throw "nuc: nuc.env: ${service}: no entry of nuc.ports leads to its port ${toString port}: add one, as in nuc.ports = nucLib.ports.forward 10000 (nucLib.ports.${service} config)"
    else if p.host == 0 then
      throw "nuc: nuc.env: ${service}: the kernel chooses the host's port that leads to ${toString port}: give nuc.ports its number"
    else
      {
        host =
          if address == "0.0.0.0" then
            "127.0.0.1"
          else if address == "::" then
            "::1"
          else
            address;
        port = toString (p.host + port - p.container);
      };
  bracketed = host: if builtins.match ".*:.*" host != null then "[${host}]" else host;
in
{
  # As libpq takes it.
  postgresql =
    config:
    let
      at = reach config "postgresql" (head (ports.postgresql config));
    in
    {
      PGHOST = at.host;
      PGPORT = at.port;
    };

  # The first server that listens on a port.
  redis =
    config:
    let
      listening = ports.redis config;
      at = reach config "redis" (head listening);
    in
    if listening == [ ] then
      throw "nuc: nuc.env: redis: no server of services.redis.servers listens on a port"
    else
      { REDIS_URL = "redis://${bracketed at.host}:${at.port}"; };
}
