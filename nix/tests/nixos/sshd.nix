{ lib, ... }:
{
  services.openssh = {
    enable = true;
    # A container's profile starts it by socket.
    startWhenNeeded = lib.mkForce false;
  };
  # No password, so that nothing has to type one.
  security.sudo.wheelNeedsPassword = false;
  users.users.ana = {
    isNormalUser = true;
    extraGroups = [ "wheel" ];
  };
  users.users.ben.isNormalUser = true;
}
