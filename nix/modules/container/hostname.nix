# The launcher sets the descriptor's name before init; activation sets it again,
# so the two must agree unless the configuration insists on its own.
{ config, lib, ... }:
{
  networking.hostName = lib.mkDefault config.nuc.name;
}
