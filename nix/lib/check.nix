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
    notYet =
      spec: v: unless (elem v spec.allowed) "nothing, as it is not supported yet: leave it out";
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
    notYet = _: _: _: [ ];
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

    network =
      path: v:
      if (v.mode or "private") == "host" && (v.ports or [ ]) != [ ] then
        [
          "${at (path ++ [ "ports" ])}: ${toString (length v.ports)} declared: expected none, as ${
            at (path ++ [ "mode" ])
          } is host: leave them out, the services listen on the host already"
        ]
      else
        [ ];

    ports =
      path: v:
      let
        address = port: port.address or "127.0.0.1";
        everyFor = a: if isString a && builtins.match ".*:.*" a != null then "::" else "0.0.0.0";
        same =
          a: b:
          a.host == b.host
          && (
            address a == address b
            || (
              everyFor (address a) == everyFor (address b)
              && elem (everyFor (address a)) [
                (address a)
                (address b)
              ]
            )
          );
      in
      twice path v "host" same
        "a port that is declared once at its address: choose another port, or another address";
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
