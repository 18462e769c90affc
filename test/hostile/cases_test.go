package hostile

import "fmt"

// hostile is a case: what is tried, and what nuc must do.
type hostile struct {
	number int
	group  string
	// name is the test's, with the number of a CVE.
	name string
	// attack and required are shown in docs/hostile.md.
	attack, required string
	// also names other tests of the case.
	also string
	run  func(p *place)
}

// test is the name of the case's subtest of TestHostile.
func (c *hostile) test() string { return fmt.Sprintf("%02d-%s", c.number, c.name) }

// cases are all of them. docs/hostile.md is made of it: go test ./test/hostile
// -run TestTable -update.
var cases = []hostile{
	{1, "Mounts", "proc-is-a-symlink-CVE-2019-19921", "root's `/proc` is a symbolic link", "the next start is refused and names the path", "", proc},
	{2, "Mounts", "sys-or-dev-is-a-symlink", "root's `/sys`, `/dev`, `/run` or `/tmp` is a symbolic link to a folder of the host's", "the next start is refused and names the path; the host stays as it is", "", sysAndDev},
	{3, "Mounts", "target-leads-out", "the target of a mount leads through `../../` or an absolute link", "it lands in the container's root", "go/internal/rootfs TestTargets", targets},
	{4, "Mounts", "dangling-link", "a link that leads nowhere is on the way to a target", "the start is refused and names the path; nothing is made outside", "go/internal/rootfs TestTargets", dangling},
	{5, "Mounts", "swapped-during-starts-CVE-2021-30465", "another container swaps folder and link in what both have mounted, for ten seconds of starts", "no mount outside the root, ever: each start succeeds or is refused", "", swapped},
	{6, "Mounts", "fake-dev-null-CVE-2025-31133", "a file with the name `/dev/null`, on the host or inside", "the host's is refused unless it is device 1:3; what is inside is not used", "go/internal/rootfs TestOpenDevice", fakeNull},
	{7, "Mounts", "console-is-a-symlink-CVE-2025-52565", "`/dev/console`, `/dev/ptmx` and the terminals of `/dev/pts` are links", "terminals are opened by the file system's descriptor, and what is below `/dev` in the root is covered: nothing is followed", "", console},
	{8, "Mounts", "tmpfs-over-procfs-CVE-2025-52881", "file systems lie over `/proc/self/attr`, `/proc/sys` or `/proc`", "can't arise: nuc writes to no file of `/proc` in a container; the test sees that joining writes to none", "", fakeProc},
	{9, "Mounts", "source-is-no-data", "a mount's source is missing, a fifo, a socket, a device", "refused at once, with the source and the reason", "go/internal/rootfs TestSources", sources},
	{10, "Mounts", "locked-flags", "root remounts, copies or stacks what is mounted read-only, nosuid or nodev", "what the host's mount says, and the descriptor's `readOnly`, stays", "go/internal/rootfs TestBuild, TestBindKeepsLocks", locked},
	{11, "Mounts", "mounts-stay-inside", "root makes mounts, also shared ones and below a folder of the host's", "the host sees none", "", insideOnly},

	{12, "Processes and file descriptors", "write-to-proc-exe-CVE-2019-5736", "root opens `/proc/PID/exe` of commands that join, and has nuc executed inside by a `#!/proc/self/exe`", "what runs is a sealed copy that nobody can write to; nuc's own file is out of reach", "go/internal/userns TestImage", overwrite},
	{13, "Processes and file descriptors", "cwd-in-proc-CVE-2024-21626", "the working directory, a home or a program leads through a link of `/proc`", "refused, naming the path", "go/internal/keeper TestChangeFolder, TestCommand", workingFolder},
	{14, "Processes and file descriptors", "open-files", "the caller of `up` and `exec` has 50 files open, and a folder as standard input", "the container has 0 to 2", "go/internal/userns", openFiles},
	{15, "Processes and file descriptors", "peek-at-a-joining-command", "root traces commands that join, reads their memory, environment and files before they have executed their program", "EPERM or EACCES", "go/internal/userns TestImage", peek},
	{16, "Processes and file descriptors", "environment", "a secret is in the environment of who calls `up` and `exec`", "it is in no process of the container", "", environment},
	{17, "Processes and file descriptors", "keyring", "a key is in the session keyring of who calls `up` and `exec`", "nobody in the container finds or reads it", "go/internal/userns", keyring},
	{18, "Processes and file descriptors", "tiocsti", "a command types into all terminals that it finds (TIOCSTI), also with bits above 32 set", "nothing is typed in the caller's shell: what a command has is a terminal of the container's, or a pipe", "", typing},
	{19, "Processes and file descriptors", "escape-sequences", "names, states and logs with escape sequences, control characters and invalid UTF-8", "what nuc prints has none, and JSON is valid", "go/cmd/nuc TestPrintable", escapeSequences},
	{20, "Processes and file descriptors", "noise", "1 GB without a newline on the console, lines as fast as they go, 100 kB as init's word", "the supervisor's memory stays bounded, and nuc answers", "go/internal/console TestLogIsBounded", noise},

	{21, "Ids", "subordinate-ids", "/etc/subuid or /etc/subgid is missing, malformed, overlapping, or has the host's root", "refused before anything is started, with the file and the line to add", "go/internal/idmap TestHostileSubIDs", subordinateIDs},
	{22, "Ids", "single-id-CVE-2018-7169", "a container of one id leaves a group that denies access", "setgroups is denied", "go/internal/idmap TestHostileSingleID", singleID},
	{23, "Ids", "groups", "`exec -u`, for callers with groups of the host's and with an /etc/group that lies", "the primary group is among the groups, and nobody else's are", "go/internal/keeper TestFindUser", groups},
	{24, "Ids", "newuidmap", "newuidmap is missing, not setuid, not root's, hangs, or gets no rights (no_new_privs)", "a line that says so, within two seconds", "go/internal/idmap TestHostileHelpers", helpers},

	{25, "Network and sockets", "host-addresses", "a container connects to 127.0.0.1, ::1, the gateway and all other addresses of the host, also after it has flushed the rules; with `network.allow`, root changes routes and interfaces", "refused unless declared", "test/integration TestHostOutOfReach, TestPastas, TestAllow", hostAddresses},
	{26, "Network and sockets", "port-without-address", "a port has no address", "it listens on 127.0.0.1 only", "test/integration TestPorts", loopbackOnly},
	{27, "Network and sockets", "port-refused", "a port is taken, needs a right, is declared twice, or has somebody else's address", "an error that names it, and nothing is started by half", "test/integration TestPortTaken", portsRefused},
	{28, "Network and sockets", "slow-clients", "connections that are never read from, and half-closed ones", "memory and files stay bounded; end-of-file passes through both ways", "go/internal/relay", slowClients},
	{29, "Network and sockets", "abstract-sockets-CVE-2020-15257", "root looks for the host's abstract sockets", "none is seen with a private network", "test/integration TestHostOutOfReach", abstractSockets},
	{30, "Network and sockets", "other-users", "another user of the host, or of the container, connects to a control socket", "the socket is of mode 0600 in a folder of mode 0700, and who gets through is hung up on", "", strangers},
	{31, "Network and sockets", "notify", "the notification socket gets 1 MB, 253 files, a forged MAINPID, a flood", "cut off or ignored, files closed; init's word is a word only", "go/internal/notify TestHostileDatagrams", forgedWords},
	{32, "Network and sockets", "foreign-files", "requests come with files that are no sockets, of the wrong kind, listening, too many, or too large", "an error, and they are closed", "go/internal/keeper TestServeTakesNoFiles, go/internal/supervisor TestReceiveSockets, go/internal/socket TestIs", foreignFiles},

	{33, "State and input", "descriptors", "a descriptor is broken JSON, of 100 MB, has duplicate or unknown keys, wrong types, NUL in a path, or a name such as `../x`", "refused in one line, with the JSON path", "go/internal/descriptor, test/integration TestBadDescriptor", descriptors},
	{34, "State and input", "killed-starts", "SIGKILL at each moment of a start", "no mount, cgroup, process or port is left, by the next `nuc ps` at the latest; the next start works", "test/faults TestKilled, test/integration TestKilled", killedStarts},
	{35, "State and input", "recycled-pid", "strangers get the numbers of supervisor, keeper, init and lease", "none of them is signalled", "go/internal/process, test/integration lease_test.go", recycled},
	{36, "State and input", "bombs", "a fork bomb and a memory bomb (within resource limits where no controllers are delegated)", "nuc answers, `stop` works; with limits, they are contained", "test/vm TestLimits/memory, TestLimits/processes", bombs},
	{37, "State and input", "exec-leaf", "init or root enables controllers, and makes cgroups where commands go (controllers where they are delegated)", "a command joins a leaf; at worst exec says that it can't", "test/vm TestLimits, TestStats", leaf},
}
