# known "a.b" v is { a.b = v; } where the release has that option, and nothing
# where it hasn't: the modules serve several releases of NixOS. Options that a
# release has renamed or removed are still declared, hidden, and to define one
# is a warning or an error.
{ lib, options }:
name: value:
let
  path = lib.splitString "." name;
  option = lib.attrByPath path null options;
in
lib.optionalAttrs (option != null && (option.visible or true) != false) (
  lib.setAttrByPath path value
)
