// On the host: `key give FILE SECRET COMMAND…` runs a command in a session whose
// keyring holds a key, and notes its number. In a container: `key take NUMBER
// SECRET` tries to read it.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GET = 0, JOIN = 1, CHOWN = 4, SETPERM = 5, LINK = 8, SEARCH = 10, READ = 11 };

static long keyctl(long op, long a, long b, long c, long d) { return syscall(SYS_keyctl, op, a, b, c, d); }

int main(int argc, char **argv)
{
	char text[65536] = "";
	long rings[] = {-1, -2, -3, -4, -5}; // thread, process, session, user, user session
	if (strcmp(argv[1], "give") == 0) {
		long ring = keyctl(JOIN, 0, 0, 0, 0);
		long key = syscall(SYS_add_key, "user", "nuc-hostile", argv[3], strlen(argv[3]), ring);
		if (ring < 0 || key < 0) {
			perror("no key can be had");
			return 1;
		}
		FILE *f = fopen(argv[2], "w");
		fprintf(f, "%ld %ld\n", key, ring);
		fclose(f);
		execvp(argv[4], argv + 4);
		return 127;
	}
	// Its keys are the user's own, as is the container's root: that there are
	// some is seen (KEY_USR_VIEW), and of a keyring, which.
	long key = atol(argv[2]), ring = atol(argv[3]);
	int leaks = 0;
	if (keyctl(READ, key, (long)text, sizeof text, 0) > 0)
		leaks++, puts("read by its number");
	if (keyctl(LINK, key, -3, 0, 0) == 0 || keyctl(LINK, ring, -3, 0, 0) == 0)
		leaks++, puts("linked");
	if (keyctl(SETPERM, key, 0x3f3f3f3f, 0, 0) == 0 || keyctl(CHOWN, key, 0, 0, 0) == 0)
		leaks++, puts("given away");
	if (keyctl(READ, key, (long)text, sizeof text, 0) > 0)
		leaks++, puts("read by its number after all");
	for (int r = 0; r < 5; r++) {
		if (keyctl(SEARCH, rings[r], (long)"user", (long)"nuc-hostile", 0) > 0)
			leaks++, printf("found in keyring %ld\n", rings[r]);
		if (keyctl(GET, rings[r], 0, 0, 0) == ring)
			leaks++, printf("keyring %ld is the host's\n", rings[r]);
	}
	if (keyctl(SEARCH, ring, (long)"user", (long)"nuc-hostile", 0) > 0)
		leaks++, puts("found in the host's keyring");
	if (syscall(SYS_request_key, "user", "nuc-hostile", NULL, -3) > 0)
		leaks++, puts("requested");
	int fd = open("/proc/keys", O_RDONLY);
	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && strstr(text, argv[4]))
		leaks++, puts("in /proc/keys");
	printf("leaks %d\n", leaks);
}
