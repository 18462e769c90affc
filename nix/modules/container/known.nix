# known "a.b" v is { a.b = v; } where the release has that option, and
# nothing where it hasn't: the modules serve several releases of NixOS.
{ lib, options }:
name: value:
let
  path = lib.splitString "." name;
in
lib.optionalAttrs (lib.hasAttrByPath path options) (lib.setAttrByPath path value)
