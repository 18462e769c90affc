# nameOf folder is the name of the container of a project's folder: what of the
# folder's own name can stand in a container's name.
folder:
let
  inherit (builtins)
    baseNameOf
    concatStringsSep
    filter
    isString
    match
    replaceStrings
    split
    stringLength
    substring
    ;
  upper = [
    "A"
    "B"
    "C"
    "D"
    "E"
    "F"
    "G"
    "H"
    "I"
    "J"
    "K"
    "L"
    "M"
    "N"
    "O"
    "P"
    "Q"
    "R"
    "S"
    "T"
    "U"
    "V"
    "W"
    "X"
    "Y"
    "Z"
  ];
  lower = [
    "a"
    "b"
    "c"
    "d"
    "e"
    "f"
    "g"
    "h"
    "i"
    "j"
    "k"
    "l"
    "m"
    "n"
    "o"
    "p"
    "q"
    "r"
    "s"
    "t"
    "u"
    "v"
    "w"
    "x"
    "y"
    "z"
  ];
  words = filter (word: isString word && word != "") (
    split "[^a-z0-9]+" (replaceStrings upper lower (baseNameOf folder))
  );
  name = concatStringsSep "-" words;
  short = substring 0 63 name;
  # No dash at the end, where the cut is.
  trimmed = if match ".*-" short != null then substring 0 (stringLength short - 1) short else short;
in
if words == [ ] then
  throw "nuc: folder ${toString folder}: no letter or digit in its name: give the container a name, with nuc.name"
else
  trimmed
