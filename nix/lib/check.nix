# check { at } descriptor returns every problem of a descriptor, one line each:
# where, what stands there, and what was expected. `at` turns a path (a list of
# keys and indices) into the name that the writer knows, such as an option's.
{
  at,
}:
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    genList
    hasAttr
    isString
    length
    toJSON
    typeOf
    ;

  peer = import ./peer.nix;
  rules = import ./rules.nix;
  schema = import ./schema.nix;

  # A derivation is text wherever JSON is written: its output's path.
  isText = v: isString v || (typeOf v == "set" && v ? outPath);
  show =
    v:
    if isText v then
      toJSON "${v}"
    else if
      elem (typeOf v) [
        "bool"
        "int"
        "float"
        "null"
      ]
    then
      toJSON v
    else
      "a ${typeOf v}";
  problem =
    path: v: expected:
    "${at path}: ${show v}: expected ${expected}";
  problemUnless =
    path: v: expected:
    if expected == null then [ ] else [ (problem path v expected) ];
  indexed = f: list: concatLists (genList (i: f i (elemAt list i)) (length list));

  # What a value was expected to be, null if it is of the type.
  unless = good: expected: if good then null else expected;
  types = {
    string = _: v: unless (isText v) "a string";
    boolean = _: v: unless (typeOf v == "bool") "true or false";
    integer =
      spec: v:
      unless (typeOf v == "int" && v >= spec.minimum && v <= spec.maximum) (
        if spec.minimum == spec.maximum then
          toString spec.minimum
        else if spec.maximum == 9223372036854775807 then
          "an integer, at least ${toString spec.minimum}"
        else
          "an integer from ${toString spec.minimum} to ${toString spec.maximum}"
      );
    array =
      spec: v:
      if typeOf v != "list" then
        "a list"
      else
        unless (!(spec ? first) || v != [ ]) "a command with its arguments";
    map = _: v: unless (typeOf v == "set" && !isText v) "an attribute set of strings";
    object = _: v: unless (typeOf v == "set" && !isText v) "an attribute set";
  };

  inner = {
    boolean = _: _: _: [ ];
    integer = _: _: _: [ ];
    string =
      path: spec: v:
      let
        s = "${v}";
        expected =
          if spec ? enum then
            (if elem s spec.enum then null else concatStringsSep " or " spec.enum)
          else
            rules.${spec.rule} s;
      in
      problemUnless path v expected;
    array =
      path: spec: v:
      let
        of = i: if i == 0 && spec ? first then spec.first else spec.items;
      in
      indexed (i: walk (path ++ [ i ]) (of i)) v
      ++ further path spec v;
    map =
      path: spec: v:
      concatMap (
        key:
        problemUnless (path ++ [ key ]) key (rules.${spec.keyRule} key)
        ++ walk (path ++ [ key ]) spec.values v.${key}
      ) (attrNames v);
    object =
      path: spec: v:
      let
        known = concatStringsSep ", " (attrNames spec.fields);
        given =
          key:
          if hasAttr key spec.fields then
            walk (path ++ [ key ]) spec.fields.${key} v.${key}
          else
            [ (problem (path ++ [ key ]) v.${key} "a known key: one of ${known}") ];
        absent = key: if hasAttr key v then [ ] else missing (path ++ [ key ]) spec.fields.${key};
      in
      concatMap given (attrNames v)
      ++ concatMap absent spec.required
      ++ further path spec v;
  };

  # Of an object, what is required in it is missing.
  missing =
    path: spec:
    if spec.type == "object" then
      concatMap (key: missing (path ++ [ key ]) spec.fields.${key}) spec.required
    else
      let
        expected =
          if spec.type == "string" then rules.${spec.rule} "" else types.${spec.type} spec "";
      in
      [ "${at path}: missing: expected ${expected}" ];

  walk =
    path: spec: v:
    let
      expected = types.${spec.type} spec v;
    in
    if expected != null then [ (problem path v expected) ] else inner.${spec.type} path spec v;

  further = path: spec: v: if spec ? also then across.${spec.also} path v else [ ];

  # Something to refuse, unless it is not there.
  refuseKey =
    path: v: key: expected:
    if v ? ${key} then [ (problem (path ++ [ key ]) v.${key} expected) ] else [ ];

  isPort = n: typeOf n == "int" && n >= 1 && n <= 65535;
  # A count of ports that goes beyond the last one.
  beyond =
    path: v: first:
    let
      port = v.${first} or null;
      count = v.count or null;
    in
    if isPort port && isPort count && port + count - 1 > 65535 then
      [
        (problem (
          path ++ [ "count" ]
        ) count "at most ${toString (65536 - port)}, as ${first} is ${toString port}: the last port is 65535")
      ]
    else
      [ ];

  # Whether two of a list want the same port; first is the key of the port, and
  # addressOf gives the address.
  collide =
    first: addressOf: a: b:
    let
      everyFor = address: if builtins.match ".*:.*" address != null then "::" else "0.0.0.0";
      count = v: if isPort (v.count or 1) then v.count or 1 else 1;
      every = everyFor (addressOf a);
    in
    isPort a.${first}
    && isPort b.${first}
    && a.${first} < b.${first} + count b
    && b.${first} < a.${first} + count a
    && (a.protocol or "tcp") == (b.protocol or "tcp")
    && isString (addressOf a)
    && isString (addressOf b)
    && (
      addressOf a == addressOf b
      || every == everyFor (addressOf b)
      && elem every [
        (addressOf a)
        (addressOf b)
      ]
    );

  # What depends on more than one key. Keys of a wrong type are told of already.
  across = {
    root =
      path: v:
      let
        wellTyped = typeOf (v.state or true) == "bool" && typeOf (v.ephemeral or true) == "bool";
        ephemeral = v.ephemeral or (!(v.state or true));
        other = at (path ++ [ "ephemeral" ]);
        refuse = key: problem (path ++ [ key ]) v.${key};
      in
      if !wellTyped then
        [ ]
      else if v ? state && v ? ephemeral && v.state == v.ephemeral then
        [ (refuse "state" "the opposite of ${other}: leave one of the two out") ]
      else if v ? sizeBytes && ephemeral == false then
        [ (refuse "sizeBytes" "it only with ${other}: leave it out, or set that to true") ]
      else
        [ ];

    mount =
      path: v:
      let
        kind = v.kind or "bind";
        refuse =
          key: what:
          if v ? ${key} then
            [ (problem (path ++ [ key ]) v.${key} "no ${what}, as kind is ${kind}: leave it out") ]
          else
            [ ];
      in
      if kind == "tmpfs" then
        refuse "source" "source"
      else if kind == "bind" then
        refuse "sizeBytes" "size"
        ++ (
          if v ? source then
            [ ]
          else
            [ "${at (path ++ [ "source" ])}: missing: expected an absolute path, as kind is bind" ]
        )
      else
        [ ];

    mounts =
      path: v:
      twice path v "target" (a: b: a.target == b.target) "a target that no other mount has";

    credential =
      path: v:
      let
        from = filter (key: v ? ${key}) [
          "file"
          "command"
          "environment"
        ];
      in
      if from == [ ] then
        [
          "${at (path ++ [ "file" ])}: missing: expected a file, or else ${at (path ++ [ "command" ])} or ${
            at (path ++ [ "environment" ])
          }"
        ]
      else if length from > 1 then
        refuseKey path v (elemAt from 1) "nothing, as ${at (path ++ [ (elemAt from 0) ])} is there: leave one of the two out"
      else
        [ ];

    credentials =
      path: v: twice path v "name" (a: b: a.name == b.name) "a name that no other credential has";

    network =
      path: v:
      let
        refuse = refuseKey path v;
        isHost = (v.mode or "private") == "host";
        mode = at (path ++ [ "mode" ]);
        outbound = at (path ++ [ "outbound" ]);
        asHost = "nothing, as ${mode} is host: leave it out";
        noWayOut = "nothing, as ${outbound} is false: leave it out, or make that true";
        ports = v.ports or [ ];
        anyPort =
          key:
          typeOf ports == "list"
          && builtins.any (port: typeOf port == "set" && (port.${key} or false) != false) ports;
        activated = typeOf ports != "list" || anyPort "socketActivation";
      in
      (
        if isHost then
          refuse "outbound" "${asHost}: the container reaches what the host reaches"
          ++ refuse "hostLoopback" "${asHost}: the host's loopback is the container's"
          ++ refuse "allow" "${asHost}, or make ${mode} private: the host's own network can't be limited"
          ++ refuse "mtu" "${asHost}: the host's interfaces have theirs"
          ++ (
            if typeOf ports == "list" && ports != [ ] then
              [
                "${at (path ++ [ "ports" ])}: ${toString (length ports)} declared: expected none, as ${mode} is host: leave them out, the services listen on the host already"
              ]
            else
              [ ]
          )
        else if (v.outbound or true) == false then
          (if (v.hostLoopback or false) == true then refuse "hostLoopback" noWayOut else [ ])
          ++ refuse "allow" noWayOut
          ++ refuse "mtu" noWayOut
        else if (v.allow or null) == [ ] then
          refuse "allow" "at least one entry: leave it out for no limit; ${outbound} false is no way out"
        else if anyPort "handOver" then
          refuse "allow" "nothing, as a port has handOver: leave one of the two out: whoever has a socket of the host can reach what the host reaches"
        else
          [ ]
      )
      ++ (
        if activated then
          [ ]
        else
          refuse "idleStopSeconds" "it only where a port has socketActivation: leave it out, or make socketActivation of a port true"
      );

    port =
      path: v:
      let
        refuse = refuseKey path v;
        isOn = key: (v.${key} or false) == true;
        onlyTCP =
          key:
          if !isOn key then
            [ ]
          else if (v.protocol or "tcp") == "udp" then
            refuse key "false, as protocol is udp: leave it out, or make protocol tcp"
          else if isOn "handOver" then
            refuse key "false, as handOver is true: leave one of the two out"
          else
            [ ];
        host = v.host or null;
        container = v.container or null;
      in
      onlyTCP "proxyProtocol"
      ++ onlyTCP "socketActivation"
      ++ (
        if isOn "handOver" && typeOf host == "int" && isPort container && host != container then
          refuse "host" "${toString container}, the port in the container, as handOver is true: make the two the same, or leave handOver out"
        else
          beyond path v "host" ++ beyond path v "container"
      );

    ports =
      path: v:
      twice path v "host" (collide "host" (port: port.address or "127.0.0.1"))
        "a port that is declared once at its address: choose another port, or another address";

    link = path: v: beyond path v "listen" ++ beyond path v "port";

    links =
      path: v:
      let
        addressOf = link: link.address or (if isText (link.to or null) then peer "${link.to}" else null);
      in
      twice path v "listen" (collide "listen" addressOf)
        "a port that is listened on once at its address: choose another port, or another address";

    dependsOn =
      path: v:
      indexed (
        i: name:
        if elem name (genList (elemAt v) i) then
          [ (problem (path ++ [ i ]) name "a container that stands once: remove one of the two") ]
        else
          [ ]
      ) v;

    # What names other containers, against the whole.
    descriptor =
      path: v:
      let
        set = key: of: if typeOf (of.${key} or null) == "set" then of.${key} else { };
        list = key: if typeOf (v.${key} or null) == "list" then v.${key} else [ ];
        network = set "network" v;
        hosts = set "hosts" network;
        links = list "links";
        linked =
          indexed (
            i: link:
            if typeOf link == "set" && link ? to then
              [
                {
                  name = link.to;
                  path = [
                    "links"
                    i
                    "to"
                  ];
                }
              ]
            else
              [ ]
          ) links;
        depended = indexed (i: name: [
          {
            inherit name;
            path = [
              "dependsOn"
              i
            ];
          }
        ]) (list "dependsOn");
        peers = linked ++ depended;
        itself =
          p:
          if v ? name && p.name == v.name then
            [ (problem (path ++ p.path) p.name "another container, as this one is ${v.name}") ]
          else
            [ ];
        host =
          name:
          if builtins.any (p: p.name == name) peers then
            [
              (problem (
                path
                ++ [
                  "network"
                  "hosts"
                  name
                ]
              ) name "no container of links or dependsOn: such a name has its address already: remove it")
            ]
          else
            [ ];
      in
      concatMap itself peers
      ++ concatMap host (attrNames hosts)
      ++ (
        if (network.mode or "private") == "host" && links != [ ] then
          [
            "${at (path ++ [ "links" ])}: ${toString (length links)} declared: expected none, as ${
              at (
                path
                ++ [
                  "network"
                  "mode"
                ]
              )
            } is host: leave them out: `nuc link - PORT NAME PORT` listens on the host"
          ]
        else
          [ ]
      );
  };

  # Reports each element that is the same as one before it.
  twice =
    path: list: key: same: expected:
    let
      whole = filter (v: typeOf v == "set" && v ? ${key}) list;
    in
    if length whole != length list then
      [ ]
    else
      indexed (
        i: v:
        if builtins.any (j: same (elemAt list j) v) (genList (j: j) i) then
          [
            (problem (
              path
              ++ [
                i
                key
              ]
            ) v.${key} expected)
          ]
        else
          [ ]
      ) list;
in
walk [ ] schema
