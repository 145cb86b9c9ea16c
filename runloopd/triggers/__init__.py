"""What starts runs by itself: schedules and watched folders."""
