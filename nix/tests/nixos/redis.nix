{ options, ... }:
{
  # One server until 22.05, several by name since.
  services.redis =
    if options.services.redis ? servers then { servers."".enable = true; } else { enable = true; };
}
