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
    match
    ;
  portOr = default: line: if line.port or null == null then default else line.port;
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

  # `listen` of each virtual host, or what nginx.nix makes of the other options
  # where it is empty. Unix sockets have no port.
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
          hasSSL = onlySSL || (host.addSSL or false) || (host.forceSSL or false);
          wantsSSL = hasSSL || (host.rejectSSL or false);
          addresses =
            if host.listenAddresses or [ ] != [ ] then
              host.listenAddresses
            else
              cfg.defaultListenAddresses or [ "0.0.0.0" ];
          lines =
            if cfg.defaultListen or [ ] != [ ] then cfg.defaultListen else map (addr: { inherit addr; }) addresses;
          # A line stands for both ports, unless it says whether it is for SSL.
          both =
            line:
            let
              ssl = line.ssl or null;
              here = default: [ (line // { port = portOr default line; }) ];
            in
            (if wantsSSL && ssl != false then here secure else [ ])
            ++ (if !onlySSL && ssl != true then here plain else [ ]);
          # nginx' own default where `listen` gives an address alone.
          declared = map (line: line // { port = portOr 80 line; }) (host.listen or [ ]);
        in
        map (line: line.port) (
          filter (line: match "unix:.*" (line.addr or "") == null) (
            if declared != [ ] then declared else concatMap both lines
          )
        );
      status = if cfg.statusPage or false then [ plain ] else [ ];
    in
    unique (concatMap of (attrValues cfg.virtualHosts) ++ status);

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
