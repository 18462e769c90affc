// Serves a port of the loopback: `server flood PORT` sends without end and never
// reads; `server sink PORT` neither reads nor sends; `server half PORT` reads to
// the end, and then says how much it was.
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *mode;

static void *serve(void *p)
{
	int c = (long)p;
	static char buf[65536];
	if (!strcmp(mode, "flood"))
		while (send(c, buf, sizeof buf, MSG_NOSIGNAL) > 0)
			;
	if (!strcmp(mode, "sink"))
		pause();
	if (!strcmp(mode, "half")) {
		char mine[65536], text[64];
		long total = 0;
		for (ssize_t n; (n = read(c, mine, sizeof mine)) > 0;)
			total += n;
		snprintf(text, sizeof text, "got %ld\n", total);
		send(c, text, strlen(text), MSG_NOSIGNAL);
	}
	if (!strcmp(mode, "talk")) {
		// Ends its own side first, and still hears.
		char mine[4096];
		long total = 0;
		send(c, "first\n", 6, MSG_NOSIGNAL);
		shutdown(c, SHUT_WR);
		for (ssize_t n; (n = read(c, mine, sizeof mine)) > 0;)
			total += n;
		FILE *f = fopen("/root/heard", "w");
		fprintf(f, "%ld\n", total);
		fclose(f);
	}
	close(c);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {AF_INET, htons(atoi(argv[2])), {htonl(INADDR_LOOPBACK)}};
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	mode = argv[1];
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (struct sockaddr *)&at, sizeof at) || listen(l, 1024)) {
		perror("listen");
		return 1;
	}
	puts("serving");
	fflush(stdout);
	for (;;) {
		pthread_t t;
		pthread_attr_t small;
		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 256 << 10);
		long c = accept(l, NULL, NULL);
		if (c >= 0 && pthread_create(&t, &small, serve, (void *)c) != 0)
			close(c);
		else
			pthread_detach(t);
	}
}
