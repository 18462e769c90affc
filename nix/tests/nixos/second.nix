# The next generation: nginx elsewhere, redis off, a user more.
{ lib, options, ... }:
{
  services.nginx.virtualHosts.localhost.listen = lib.mkForce [
    {
      addr = "127.0.0.1";
      port = 8081;
    }
  ];
  services.redis =
    if options.services.redis ? servers then
      { servers."".enable = lib.mkForce false; }
    else
      { enable = lib.mkForce false; };
  users.users.cleo.isNormalUser = true;
}
