# The console is the terminal that started the container: nobody reads the
# journal of a container whose boot hangs.
{ lib, ... }:
{
  services.journald.console = lib.mkDefault "/dev/console";
}
