package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/gcroot"
	"github.com/nix-user-containers/nuc/go/internal/hostfolder"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// claim takes what others could have for as long as the container is up: ids
// and ports.
func (s *Supervisor) claim() error {
	d := s.descriptor()
	var err error
	if s.ids, err = idmap.PlanFor(d.IDs.Count); err != nil {
		return err
	}
	s.starter.SetIDs(s.ids)
	if s.ids.Short != "" {
		s.warn(s.ids.Short)
	}
	if err := CheckStore(d); err != nil {
		return err
	}
	return s.listen()
}

// gather gets the container's credentials. They are kept for each boot, also
// after a switch to a descriptor that has others.
func (s *Supervisor) gather() error {
	if s.o.Credentials == nil || len(s.descriptor().Credentials) == 0 {
		return nil
	}
	var err error
	if s.credentials, err = s.o.Credentials(); err != nil {
		return err
	}
	for _, text := range s.credentials.LeftOut {
		s.warn(text)
	}
	names := s.credentials.Names()
	s.change(func(st *Status) { st.Credentials = names })
	return nil
}

// prepare makes all that a run needs of the host, cheapest and likeliest to
// fail first. The keeper, which takes longest, is started beside what comes
// after the cgroup that it has to be in.
func (s *Supervisor) prepare() error {
	s.updating.Lock()
	defer s.updating.Unlock()
	// The keeper is to hold it as well.
	if err := s.lock.HoldState(s.o.Container); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := s.openGroup(); err != nil {
		return err
	}
	fault.At("group")
	up := make(chan error, 1)
	go func() { up <- s.startKeeper() }()
	err := s.settle()
	if err == nil {
		err = s.furnish()
	}
	if kerr := <-up; err == nil {
		err = kerr
	}
	return err
}

// openGroup makes the container's cgroup with its limits.
func (s *Supervisor) openGroup() error {
	d := s.descriptor()
	var err error
	if err := sweepGroup(s.lock); err != nil {
		s.log.Warn("could not remove the cgroup of an earlier run", "error", err)
	}
	if s.group, err = cgroup.Open(d.Name, s.noteGroup, s.starter.Processes()...); err != nil {
		return err
	}
	if missing := s.group.Missing(); missing != "" {
		s.warn(missing)
	}
	if err := s.limit(); err != nil {
		return err
	}
	if err := s.noteGroup(s.group.Description()); err != nil {
		return err
	}
	s.watchShortage()
	return s.group.Chown(s.ids.RootUID(), s.ids.RootGID())
}

// settle makes what stays from the first run to the last, once.
func (s *Supervisor) settle() error {
	if s.uuid != "" {
		return nil
	}
	generation, err := s.record()
	if err != nil {
		return err
	}
	fault.At("recorded")
	uuid, err := s.o.Container.UUID()
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := s.openControl(); err != nil {
		return err
	}
	s.uuid = uuid // from now on it is settled
	s.o.Container.ForgetExit()
	s.change(func(st *Status) { st.Generation = generation })
	return nil
}

// openControl makes the control socket, once.
func (s *Supervisor) openControl() error {
	if s.control != nil {
		return nil
	}
	// That of a supervisor that was killed with its keeper.
	err := unix.Unlinkat(int(s.lock.Folder.Fd()), ControlSocket, 0)
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: filepath.Join(s.o.Container.Runtime, ControlSocket), Err: err}
	}
	if s.control, err = seqpacket.Listen(s.lock.Folder, ControlSocket); err != nil {
		return fmt.Errorf("control socket in %s: %w", s.o.Container.Runtime, err)
	}
	return nil
}

// furnish makes what is in the container's folders.
func (s *Supervisor) furnish() error {
	var err error
	if s.notify, err = s.starter.Furnish(s.uuid); err != nil {
		return err
	}
	s.change(func(st *Status) { st.Cgroup = s.group.Path() })
	return nil
}

// bootRequest is what the descriptor says now: after a switch, a reboot inside
// boots the new generation.
func (s *Supervisor) bootRequest() (keeper.Boot, error) {
	d := s.descriptor()
	plan, err := s.plan(d)
	if err != nil {
		return keeper.Boot{}, err
	}
	if err := s.identify(&plan, d); err != nil {
		return keeper.Boot{}, err
	}
	return keeper.Boot{
		FixedNetwork: s.way().isFixed(), Unfiltered: d.Security.Seccomp == descriptor.SeccompOff,
		Plan: plan, Hostname: d.Name,
		Init: d.System.Init, Arguments: d.System.Arguments, Environment: environment(d, s.uuid),
		Rows: s.o.Rows, Columns: s.o.Columns, Listeners: len(s.handedOver()),
	}, nil
}

// warn tells a thing once, also where several runs come upon it.
func (s *Supervisor) warn(text string) {
	s.log.Warn(text, "container", s.descriptor().Name)
	s.change(func(st *Status) {
		if !slices.Contains(st.Warnings, text) {
			st.Warnings = append(slices.Clone(st.Warnings), text)
		}
	})
}

// retract takes warnings back that begin so, as they are over.
func (s *Supervisor) retract(about string) {
	s.change(func(st *Status) {
		st.Warnings = slices.DeleteFunc(slices.Clone(st.Warnings), func(text string) bool { return strings.HasPrefix(text, about) })
	})
}

// limit applies the descriptor's resources.
func (s *Supervisor) limit() error {
	if s.descriptor().Resources == nil {
		return nil
	}
	warnings, err := s.group.Apply(s.descriptor().Resources)
	for _, w := range warnings {
		s.warn(w)
	}
	return err
}

// record makes the state folder and keeps the descriptor in it.
func (s *Supervisor) record() (int, error) {
	c := s.o.Container
	n, err := c.Record(s.o.Source)
	if err != nil {
		return 0, err
	}
	if s.o.Origin != nil {
		if err := c.SetOrigin(s.o.Origin); err != nil {
			return 0, fmt.Errorf("state folder: %w", err)
		}
	}
	// Nix takes longer than a start does.
	go s.protect(n, s.o.Source, s.o.StorePath)
	return n, nil
}

// protect keeps a generation's store paths from being collected, the
// descriptor's own among them.
func (s *Supervisor) protect(n int, source []byte, own string) {
	paths := gcroot.Paths(append(slices.Clone(source), " "+own...))
	if len(paths) == 0 {
		return
	}
	root := s.o.Container.Root(n)
	if _, err := os.Stat(root); err == nil {
		return
	}
	if err := s.starter.Protect(n, paths); err != nil {
		s.warn(err.Error())
	}
}

// CheckStore refuses a system, or a tree, that is not in the store any more.
func CheckStore(d *descriptor.Descriptor) error {
	lost := func(key, path string) error {
		return fmt.Errorf("%s: %s is not in the store (any more): build it again, with `nuc build` or `nuc switch`", key, path)
	}
	if tree := d.Root.Tree; strings.HasPrefix(tree, "/nix/store/") {
		if _, err := os.Lstat(tree); errors.Is(err, os.ErrNotExist) {
			return lost("root.tree", tree)
		}
	}
	top := d.System.Toplevel
	for _, m := range d.Mounts {
		rest, below := strings.CutPrefix(top, m.Target+"/")
		if top == "" || m.Kind != descriptor.KindBind || !below {
			continue
		}
		if _, err := os.Lstat(filepath.Join(m.Source, rest)); errors.Is(err, os.ErrNotExist) {
			return lost("system.toplevel", top)
		}
	}
	return nil
}

// plan says what the root file system is made of, and makes the folders of
// nuc's own that are part of it.
func (s *Supervisor) plan(d *descriptor.Descriptor) (rootfs.Plan, error) {
	p := rootfs.Plan{
		Base:       filepath.Join(s.o.Container.Runtime, "root"),
		Lower:      d.Root.Tree,
		SizeBytes:  d.Root.SizeBytes,
		Mounts:     d.Mounts,
		Devices:    d.Devices,
		TTYGroup:   d.System.TTYGroup,
		HostFolder: hostfolder.Path(s.o.Container.Runtime),

		Credentials: s.credentials.All(),
		HostNetwork: d.Network.Mode == descriptor.NetworkHost,
		Localtime:   localtime(d),
		KeepJournal: !d.Root.Ephemeral,
	}
	if err := os.Mkdir(p.Base, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return p, fmt.Errorf("runtime folder: %w", err)
	}
	var own []string
	switch {
	case d.Root.Ephemeral:
	case d.Root.Tree != "":
		p.Folder = filepath.Join(s.o.Container.State, overlay)
		own = []string{p.Folder, filepath.Join(p.Folder, upper), filepath.Join(p.Folder, "work")}
	default:
		p.Folder = filepath.Join(s.o.Container.State, root)
		own = []string{p.Folder}
	}
	for _, dir := range own {
		if err := s.ownFolder(dir); err != nil {
			return p, err
		}
	}
	if d.Root.Tree != "" {
		if err := s.checkTree(d.Root.Tree); err != nil {
			return p, err
		}
	}
	return p, s.rootOwned(&p, d)
}

// Folders of the state folder.
const (
	root    = "root"
	overlay = "overlay"
	upper   = "upper" // in overlay
)

// Written is the folder of what a container has written to its root, "" where it
// keeps nothing.
func Written(c state.Container, d *descriptor.Descriptor) string {
	switch {
	case d.Root.Ephemeral:
		return ""
	case d.Root.Tree != "":
		return filepath.Join(c.State, overlay, upper)
	}
	return filepath.Join(c.State, root)
}

// ownFolder makes a folder that belongs to the container's root: systemd-
// tmpfiles refuses to work below a / that is somebody else's.
func (s *Supervisor) ownFolder(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		return s.stillOwn(dir)
	}
	if err == nil {
		err = unix.Chmod(dir, 0o755) // whatever the umask is
	}
	if err == nil && int(s.ids.RootUID()) != os.Getuid() {
		err = os.Chown(dir, int(s.ids.RootUID()), int(s.ids.RootGID()))
	}
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// stillOwn refuses a folder that another map of ids has made: what is in it
// belongs to nobody now.
func (s *Supervisor) stillOwn(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("state folder: %w", &os.PathError{Op: "stat", Path: dir, Err: err})
	}
	if st.Uid == s.ids.RootUID() {
		return nil
	}
	return fmt.Errorf("state folder: %s belongs to uid %d of the host, and the container's root is uid %d now: put the lines in /etc/subuid and /etc/subgid back as they were, or remove the data with `nuc rm --state %s`", dir, st.Uid, s.ids.RootUID(), s.o.Container.Name)
}

// checkTree refuses a tree whose files the container's root would not own:
// nothing in it could be written or even become root.
func (s *Supervisor) checkTree(tree string) error {
	var st unix.Stat_t
	if err := unix.Stat(tree, &st); err != nil {
		return fmt.Errorf("root.tree: %s: %w", tree, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("root.tree: %s is no folder", tree)
	}
	if st.Uid != s.ids.RootUID() {
		s.warn(fmt.Sprintf("root.tree: %s belongs to uid %d, the container's root is uid %d of the host: files of its root user are not root's inside; unpack it with `nuc unshare tar -xpf …`", tree, st.Uid, s.ids.RootUID()))
	}
	return nil
}

// startKeeper starts the keeper and tells it what to sweep.
func (s *Supervisor) startKeeper() error {
	private := s.descriptor().Network.Mode == descriptor.NetworkPrivate
	child, err := s.starter.Keeper(private)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.keeper = child
	s.mu.Unlock()
	guard := keeper.Guard{Cgroup: s.group.Description(), PrivateNetwork: private, FixedNetwork: s.way().isFixed()}
	return child.Conn.Send(guard, s.lock.File, s.lock.Folder, s.lock.State)
}

// environment is init's.
func environment(d *descriptor.Descriptor, uuid string) []string {
	env := []string{
		"container=nuc",
		"container_uuid=" + uuid,
		"NOTIFY_SOCKET=/run/host/notify",
		"CREDENTIALS_DIRECTORY=/run/host/credentials",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TERM=xterm-256color",
	}
	for name, value := range d.System.Environment {
		env = append(env, name+"="+value)
	}
	sort.Strings(env[6:])
	return env
}

// identify says which files are written at each start: what identifies the
// container, which a tree used by several containers can't say, and how to
// resolve names.
func (s *Supervisor) identify(p *rootfs.Plan, d *descriptor.Descriptor) error {
	p.Files = map[string]string{
		"/etc/machine-id": s.uuid + "\n",
		"/etc/hostname":   d.Name + "\n",
	}
	p.Links = map[string]string{}
	switch {
	case s.way() != nil:
		if err := s.publishNames(d, &s.way().servers); err != nil {
			return err
		}
		p.Links["/etc/resolv.conf"] = namesName
	case d.Network.Mode == descriptor.NetworkHost:
		if data, err := os.ReadFile(hostResolvConf); err == nil && len(data) < 64<<10 {
			p.Files["/etc/resolv.conf"] = string(data)
		}
	default:
		p.Files["/etc/resolv.conf"] = "# nuc: no way out of this container\n"
	}
	if d.System.Toplevel != "" {
		return nil
	}
	if _, declared := hostsFile(d); declared {
		p.Links["/etc/hosts"] = hostsName
	} else {
		p.DefaultLinks = map[string]string{"/etc/hosts": hostsName}
	}
	return s.openPeers()
}

// localtime is the host's zone as a link from /etc; a NixOS system says its own.
func localtime(d *descriptor.Descriptor) string {
	if d.System.Toplevel != "" {
		return ""
	}
	target, err := os.Readlink("/etc/localtime")
	if err != nil {
		return ""
	}
	_, zone, found := strings.Cut(target, "zoneinfo/")
	if !found {
		return ""
	}
	return "../usr/share/zoneinfo/" + zone
}

// rootOwned fills in the copies of the store paths to be shown as root's.
func (s *Supervisor) rootOwned(p *rootfs.Plan, d *descriptor.Descriptor) error {
	copies, err := s.starter.Copies(d.RootOwned)
	for i, c := range copies {
		p.RootOwned = append(p.RootOwned, rootfs.Replacement{Path: d.RootOwned[i], Copy: c})
	}
	return err
}
