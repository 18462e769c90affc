# Nix and the launcher agree on descriptors: the launcher's own good and bad
# ones are taken and refused here, at the same path. Returns what differs.
let
  inherit (import ../lib { }) problems;
  testdata = ../../go/internal/descriptor/testdata;

  text = folder: name: builtins.readFile (testdata + "/${folder}/${name}");
  read = folder: name: builtins.fromJSON (text folder name);
  # A Nix string can't hold NUL, so there is nothing to refuse.
  hasNul = s: builtins.length (builtins.split "\\\\u0000" s) > 1;
  names =
    folder:
    builtins.filter (name: !hasNul (text folder name)) (
      builtins.attrNames (builtins.readDir (testdata + "/${folder}"))
    );
  starts = prefix: s: builtins.substring 0 (builtins.stringLength prefix) s == prefix;

  # The files' names have no quotes.
  unquoted = builtins.replaceStrings [ "\"" ] [ "" ];

  # Differences of JSON's text, which a parsed value doesn't show.
  textOnly = [
    "ids.count--exponent.json"
    "ids.count--fraction.json"
    "name--twice.json"
    "resources.memoryMax--overflow.json"
    "system.arguments[0]--half-a-pair.json"
    "system.environment.A--twice.json"
  ];

  good = builtins.concatMap (
    name: map (line: "good/${name}: refused: ${line}") (problems (read "good" name))
  ) (names "good");

  bad =
    folder:
    builtins.concatMap (
      name:
      let
        path = builtins.head (builtins.match "(.*)--.*" name);
        lines = problems (read folder name);
      in
      if builtins.elem name textOnly then
        [ ]
      else if builtins.any (line: starts "${path}: " (unquoted line)) lines then
        [ ]
      else
        [ "${folder}/${name}: not refused at ${path}: ${builtins.toJSON lines}" ]
    ) (names folder);

  # The schema's patterns hold NUL.
  schema = builtins.fromJSON (
    builtins.replaceStrings [ "\\u0000" ] [ "" ] (builtins.readFile ../../docs/descriptor.schema.json)
  );
  both =
    path: ours: theirs:
    let
      key = a: b: if a == b then [ ] else [ "${path}: ${builtins.toJSON a} here, ${builtins.toJSON b} in the schema" ];
      fields = builtins.attrNames ours.fields;
    in
    if ours.type == "object" then
      key fields (builtins.attrNames theirs.properties)
      ++ key (builtins.sort builtins.lessThan ours.required) (
        builtins.sort builtins.lessThan (theirs.required or [ ])
      )
      ++ builtins.concatMap (
        name:
        if theirs.properties ? ${name} then
          both "${path}.${name}" ours.fields.${name} theirs.properties.${name}
        else
          [ ]
      ) fields
    else if ours.type == "array" then
      key "array" theirs.type ++ both "${path}[]" ours.items theirs.items
    else if ours.type == "map" then
      key "object" theirs.type
    else
      key ours.type (theirs.type or "string")
      ++ (
        if ours.type == "integer" then
          key ours.minimum theirs.minimum ++ key ours.maximum (theirs.maximum or 9223372036854775807)
        else
          key (ours.enum or null) (theirs.enum or null)
          ++ (if ours ? rule then key "#/$defs/${ours.rule}" (theirs."$ref" or "#/$defs/text") else [ ])
      );
in
good ++ bad "bad" ++ bad "beyond-schema" ++ both "descriptor" (import ../lib/schema.nix) schema
