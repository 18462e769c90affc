# A live switch is the way to a new generation, also where a profile thought
# that a container is only ever replaced (it is off in NixOS' own images).
{ lib, options, ... }:
let
  known = import ./known.nix { inherit lib options; };
in
{
  config = known "system.switch.enable" (lib.mkDefault true);
}
