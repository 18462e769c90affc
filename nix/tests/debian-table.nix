# Which Debian packages stand in for which packages of nixpkgs, by the name
# without the version, and what must be added to their files. A name that is not
# here becomes an empty folder.
{ tree }:
{
  packages = {
    acl = [ "acl" ];
    attr = [ "attr" ];
    bash = [ "bash" ];
    bash-interactive = [ "bash" ];
    bzip2 = [ "bzip2" ];
    coreutils = [ "coreutils" ];
    cpio = [ "cpio" ];
    curl = [ "curl" ];
    dbus = [
      "dbus"
      "dbus-bin"
      "dbus-daemon"
      "dbus-system-bus-common"
      "dbus-session-bus-common"
    ];
    diffutils = [ "diffutils" ];
    e2fsprogs = [ "e2fsprogs" ];
    findutils = [ "findutils" ];
    fuse = [ "fuse3" ];
    gawk = [ "mawk" ];
    getent-glibc = [ "libc-bin" ];
    glibc = [
      "libc-bin"
      "nscd"
    ];
    gnugrep = [ "grep" ];
    gnused = [ "sed" ];
    gnutar = [ "tar" ];
    gzip = [ "gzip" ];
    hostname-net-tools = [ "hostname" ];
    iproute2 = [ "iproute2" ];
    iptables = [ "iptables" ];
    iputils = [ "iputils-ping" ];
    kmod = [ "kmod" ];
    less = [ "less" ];
    libcap = [ "libcap2-bin" ];
    libxslt = [ "xsltproc" ];
    linux-pam = [
      "libpam-modules"
      "libpam-modules-bin"
    ];
    nano = [ "nano" ];
    ncurses = [
      "ncurses-base"
      "ncurses-bin"
    ];
    net-tools = [
      "hostname"
      "net-tools"
    ];
    nftables = [ "nftables" ];
    nginx = [
      "nginx"
      "nginx-common"
    ];
    nix = [
      "nix-bin"
      "nix-setup-systemd"
    ];
    openresolv = [ "openresolv" ];
    openssh = [
      "openssh-client"
      "openssh-server"
      "openssh-sftp-server"
    ];
    patch = [ "patch" ];
    perl = [
      "perl"
      "perl-base"
    ];
    postgresql = [
      "postgresql-15"
      "postgresql-client-15"
    ];
    procps = [ "procps" ];
    psmisc = [ "psmisc" ];
    redis = [
      "redis-server"
      "redis-tools"
    ];
    rsync = [ "rsync" ];
    shadow = [
      "login"
      "passwd"
    ];
    socat = [ "socat" ];
    strace = [ "strace" ];
    sudo = [ "sudo" ];
    systemd = [
      "libnss-myhostname"
      "libnss-systemd"
      "libpam-systemd"
      "systemd"
      "systemd-container"
      "systemd-sysv"
      "udev"
    ];
    time = [ "time" ];
    tzdata = [ "tzdata" ];
    util-linux = [
      "bsdutils"
      "login"
      "mount"
      "util-linux"
      "util-linux-extra"
    ];
    which = [ "debianutils" ];
    xz = [ "xz-utils" ];
  };

  # Run in the package's folder.
  extra = {
    bash = "ln -s bash bin/sh";
    bash-interactive = "ln -s bash bin/sh";
    dbus = ''
      mkdir -p libexec
      ln -s ${tree}/usr/lib/dbus-1.0/dbus-daemon-launch-helper libexec/
    '';
    gawk = "ln -s mawk bin/awk";
    glibc-locales = "mkdir -p lib/locale; touch lib/locale/locale-archive";
    iana-etc = "mkdir -p etc; cp ${tree}/etc/protocols ${tree}/etc/services etc/";
    # Debian has the names as alternatives, and these work in a user namespace.
    iptables = "for name in ip{,6}tables{,-restore,-save}; do ln -s xtables-nft-multi bin/$name; done";
    nginx = "mkdir -p conf; ln -s ${tree}/etc/nginx/* conf/";
    nss-cacert = ''
      mkdir -p etc/ssl/certs
      cp ${tree}/etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ca-bundle.crt
    '';
    openssh = "mkdir -p etc/ssh; ln -sf ${tree}/etc/ssh/moduli etc/ssh/moduli";
    postgresql = "ln -sf ${tree}/usr/lib/postgresql/15/bin/* bin/";
    # Debian's su is util-linux', whose other programs would stand twice.
    shadow = "ln -s ${tree}/usr/bin/su bin/su";
    # systemd's units are copied by name, and only those that NixOS wants.
    systemd = ''
      rm -rf example lib/systemd/system lib/systemd/user
      ln -s ${tree}/usr/example example
    '';
    which = "ln -sf ${tree}/usr/bin/which.debianutils bin/which";
  };
}
