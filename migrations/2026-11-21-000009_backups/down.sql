DROP TABLE restore_drills, backups;
