// Says to the service manager what it should not believe.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un to = {AF_UNIX, "/run/host/notify"};

static int say(int s, const char *text, size_t size, int fds)
{
	char control[CMSG_SPACE(253 * sizeof(int))] = {0};
	struct iovec part = {(void *)text, size};
	struct msghdr m = {&to, sizeof to, &part, 1, fds ? control : NULL, fds ? CMSG_SPACE(fds * sizeof(int)) : 0};
	if (fds) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(fds * sizeof(int));
		for (int i = 0; i < fds; i++)
			((int *)CMSG_DATA(c))[i] = i % 2 ? s : 0;
	}
	return sendmsg(s, &m, 0) < 0 ? errno : 0;
}

int main(int argc, char **argv)
{
	int s = socket(AF_UNIX, SOCK_DGRAM, 0), big = 4 << 20;
	char *mib = malloc(1 << 20);
	memset(mib, 'x', 1 << 20);
	memcpy(mib, "STATUS=", 7);
	setsockopt(s, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
	printf("1 MB: %s\n", strerror(say(s, mib, 1 << 20, 0)));
	printf("100 kB: %s\n", strerror(say(s, mib, 100000, 0)));
	for (int i = 0; i < 200; i++) {
		int e = say(s, "FDSTORE=1\nFDNAME=x", 18, 253);
		if (i == 0 || e)
			printf("253 files: %s\n", strerror(e));
	}
	const char *forged = "MAINPID=1\nMAINPIDFDID=1\nERRNO=9\nWATCHDOG=trigger\nWATCHDOG_USEC=1\nEXIT_STATUS=7\nBUSERROR=x\nSTATUS=forged";
	printf("forged: %s\n", strerror(say(s, forged, strlen(forged), 0)));
	say(s, "", 0, 0);
	say(s, "\n\n=\n==\0x\nMAINPID=-1", 20, 0);
	for (int i = 0; i < 20000; i++)
		say(s, "STATUS=flood", 12, 0);
	puts("done");
}
