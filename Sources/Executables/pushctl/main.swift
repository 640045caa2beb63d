// pushctl
