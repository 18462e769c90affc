# Container ports as services declare them, for nuc.ports. Each function takes a
# configuration and returns a list of ports; `forward` makes entries of them:
#
#   nuc.ports = nucLib.ports.forward 8000 (nucLib.ports.nginx config);
let
  inherit (builtins)
    attrValues
    concatMap
    elem
    filter
    foldl'
    ;
  unique = foldl' (seen: port: if elem port seen then seen else seen ++ [ port ]) [ ];
in
{
  # forward offset ports: each port, on the host `offset` higher.
  forward =
    offset:
    map (port: {
      host = port + offset;
      container = port;
    });

  # services.postgresql.settings.port since 24.05.
  postgresql =
    config:
    let
      cfg = config.services.postgresql;
    in
    [ (cfg.settings.port or cfg.port or 5432) ];

  # `listen` of each virtual host, or what nginx.nix takes where it is empty.
  nginx =
    config:
    let
      cfg = config.services.nginx;
      plain = cfg.defaultHTTPListenPort or 80;
      secure = cfg.defaultSSLListenPort or 443;
      of =
        host:
        let
          onlySSL = host.onlySSL or false;
          ssl = onlySSL || (host.addSSL or false) || (host.forceSSL or false);
          # An address without a port stands for the default ones.
          declared = filter (l: (l.port or null) != null) (host.listen or [ ]);
        in
        if declared != [ ] then
          map (l: l.port) declared
        else
          (if onlySSL then [ ] else [ plain ]) ++ (if ssl then [ secure ] else [ ]);
    in
    unique (concatMap of (attrValues cfg.virtualHosts));

  # Servers of 22.05 and later; a port of 0 is none.
  redis =
    config:
    filter (port: port != 0) (
      map (server: server.port) (
        filter (server: server.enable) (attrValues (config.services.redis.servers or { }))
      )
    );

  openssh = config: config.services.openssh.ports;
}
