// Asks a control socket for the status, and prints what comes of it.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un to = {AF_UNIX};
	char answer[65536];
	int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
	if (connect(s, (struct sockaddr *)&to, sizeof to) != 0) {
		perror("connect");
		return 3;
	}
	puts("connected");
	send(s, argv[2], strlen(argv[2]), MSG_NOSIGNAL);
	ssize_t n = recv(s, answer, sizeof answer, 0);
	printf("answer of %zd bytes: %.*s\n", n, n > 0 ? (int)n : 0, answer);
}
