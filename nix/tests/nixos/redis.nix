{
  services.redis.enable = true;
}
