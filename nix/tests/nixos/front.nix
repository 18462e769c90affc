# Reaches back by its name.
{
  nuc = {
    dependsOn = [ "back" ];
    links = [
      {
        listen = 8080;
        to = "back";
      }
    ];
  };
}
