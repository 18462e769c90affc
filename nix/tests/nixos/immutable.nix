# Users and passwords that only the configuration can change.
{
  users.mutableUsers = false;
  users.users.root.hashedPassword = "$6$nuc$not.a.hash.of.any.password";
  users.users.dora = {
    isNormalUser = true;
    hashedPassword = "!";
  };
}
