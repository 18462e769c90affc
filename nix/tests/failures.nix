# The tests of a file that failed, with what they expected and got.
tests:
builtins.listToAttrs (
  builtins.concatMap (
    name:
    if tests.${name} == null then
      [ ]
    else
      [
        {
          inherit name;
          value = tests.${name};
        }
      ]
  ) (builtins.attrNames tests)
)
