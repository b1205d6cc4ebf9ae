"""What moves events: logs, blocks, the frame, the stages and their drivers."""
