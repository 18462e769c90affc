{
  name = "minimal";
  system.init = "/sbin/init";
}
