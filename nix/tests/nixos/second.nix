# The next generation: nginx elsewhere, a user more, redis gone.
{ lib, ... }:
{
  services.nginx.virtualHosts.localhost.listen = lib.mkForce [
    {
      addr = "127.0.0.1";
      port = 8081;
    }
  ];
  services.redis.enable = lib.mkForce false;
  users.users.cleo.isNormalUser = true;
}
